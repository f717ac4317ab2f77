package directory

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	krb5 "github.com/jcmturner/gokrb5/v8/config"
)

// krb5Conf is what counts for us of krb5.conf(5). Package gokrb5's own reader knows
// no include, asks DNS for KDCs only where it is told to, as MIT Kerberos does
// unless it is told not to, and refuses the whole file for a value that is new to
// it of a setting that it has no use for.
type krb5Conf struct {
	settings map[string]string // [libdefaults]
	domains  map[string]string // [domain_realm]
	realms   map[string][]string
}

// readKrb5Conf reads krb5.conf and what it includes.
func readKrb5Conf(file string) (*krb5.Config, error) {
	k := krb5Conf{map[string]string{}, map[string]string{}, map[string][]string{}}
	if err := k.read(file, 0); err != nil {
		return nil, err
	}
	var enctypes strings.Builder
	for _, key := range []string{"permitted_enctypes", "default_tkt_enctypes", "default_tgs_enctypes"} {
		if value, set := k.settings[key]; set {
			fmt.Fprintf(&enctypes, "%s = %s\n", key, strings.ReplaceAll(value, ",", " "))
		}
	}
	conf, err := krb5.NewFromString("[libdefaults]\n" + enctypes.String())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	lib, usual := &conf.LibDefaults, krb5.New().LibDefaults
	for ids, usual := range map[*[]int32][]int32{
		&lib.PermittedEnctypeIDs:  usual.PermittedEnctypeIDs,
		&lib.DefaultTktEnctypeIDs: usual.DefaultTktEnctypeIDs,
		&lib.DefaultTGSEnctypeIDs: usual.DefaultTGSEnctypeIDs,
	} {
		if len(*ids) == 0 { // names of families, which gokrb5 does not know
			*ids = usual
		}
	}
	lib.DefaultRealm = k.settings["default_realm"]
	lib.DNSLookupKDC = !slices.Contains([]string{"n", "no", "false", "f", "0", "nil", "off"}, strings.ToLower(k.settings["dns_lookup_kdc"]))
	if limit, err := strconv.Atoi(k.settings["udp_preference_limit"]); err == nil {
		lib.UDPPreferenceLimit = limit
	}
	maps.Copy(conf.DomainRealm, k.domains)
	for name, kdcs := range k.realms {
		conf.Realms = append(conf.Realms, krb5.Realm{Realm: name, KDC: kdcs})
	}
	return conf, nil
}

// deepest is how far files may include others: none that is meant so does it more
// than once or twice.
const deepest = 10

// included are the names that count in a folder that is included.
var included = regexp.MustCompile(`^([A-Za-z0-9_-]+|[^.].*\.conf)$`)

// read reads a file. Each begins anew with a section, and of what is set several
// times the first counts; but a realm has all the KDCs that are named for it.
func (k krb5Conf) read(file string, depth int) error {
	if depth > deepest {
		return fmt.Errorf("%s: includes itself", file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	section, last, realm, level := "", "", "", 0
	first := func(of map[string]string, key, value string) {
		if _, set := of[strings.ToLower(key)]; !set {
			of[strings.ToLower(key)] = value
		}
	}
	for n, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		key, value, isSetting := strings.Cut(line, "=")
		key, value = strings.TrimSuffix(strings.TrimSpace(key), "*"), strings.Trim(strings.TrimSpace(value), `"`)
		word, name := line, ""
		if i := strings.IndexAny(line, " \t"); i > 0 {
			word, name = line[:i], strings.TrimSpace(line[i:])
		}
		if isSetting {
			last = key
		}
		switch {
		case line == "", line[0] == '#', line[0] == ';', word == "module":
		case word == "include":
			if err := k.read(name, depth+1); err != nil {
				return err
			}
		case word == "includedir":
			files, err := os.ReadDir(name)
			if err != nil {
				return err
			}
			for _, f := range files {
				if included.MatchString(f.Name()) {
					if err := k.read(filepath.Join(name, f.Name()), depth+1); err != nil {
						return err
					}
				}
			}
		case line[0] == '[':
			section, level = strings.Trim(line, "[]*"), 0
		case line[0] == '}':
			level--
		case value == "{", line == "{":
			if level++; level == 1 {
				realm = last
			}
		case !isSetting:
			return fmt.Errorf("%s:%d: neither a section nor a setting", file, n+1)
		case section == "libdefaults" && level == 0:
			first(k.settings, key, value)
		case section == "domain_realm" && level == 0:
			first(k.domains, key, value)
		case section == "realms" && level == 1 && key == "kdc":
			if kdc := addressOfKDC(value); kdc != "" {
				k.realms[realm] = append(k.realms[realm], kdc)
			}
		}
	}
	return nil
}

// addressOfKDC is the host and port of a KDC, "" if it is reached otherwise.
func addressOfKDC(value string) string {
	value = strings.TrimPrefix(strings.TrimPrefix(value, "tcp/"), "udp/")
	if value == "" || strings.Contains(value, "/") { // by HTTPS, or a socket
		return ""
	}
	if _, _, err := net.SplitHostPort(value); err == nil {
		return value
	}
	return net.JoinHostPort(strings.Trim(value, "[]"), "88")
}
