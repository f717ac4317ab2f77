package cluster

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// startDovecot starts the Dovecot store.
func (c *Cluster) startDovecot(ctx context.Context, s *Store) error {
	dir := c.in(s.short())
	for _, sub := range []string{"", "run", "lib"} {
		if err := makeDir(filepath.Join(dir, sub), 0o755, nil); err != nil {
			return err
		}
	}
	if err := makeDir(filepath.Join(dir, "mail"), 0o750, user("mail")); err != nil {
		return err
	}
	series, err := DovecotSeries(ctx)
	if err != nil {
		return err
	}
	if err := c.render("contrib/dovecot/dovecot-"+series+".conf", s, filepath.Join(dir, "dovecot.conf")); err != nil {
		return err
	}
	// The names of the key are those of no authority's and no key's.
	keys := filepath.Join(dir, "keys", "default", "HS256")
	if err := os.MkdirAll(keys, 0o755); err != nil {
		return err
	}
	for file, line := range map[string]string{
		"users":                      "",
		"master-users":               passwordLine(ProxyUser, c.ProxyPassword),
		"oauth2.conf":                fmt.Sprintf("introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix=%s/keys/\nusername_attribute = sub\n", dir),
		"keys/default/HS256/default": base64.StdEncoding.EncodeToString([]byte(c.ProxyPassword)),
	} {
		// Read by Dovecot's auth process, which gives up root first.
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, []byte(line), 0o640); err != nil {
			return err
		}
		if err := user("daemon").chown(path); err != nil {
			return err
		}
	}
	return c.runStore(ctx, s)
}

// DovecotSeries is the series of the Dovecot that is here, as "2.4": each has a syntax
// of its own.
func DovecotSeries(ctx context.Context) (string, error) {
	version, err := exec.CommandContext(ctx, DovecotDir+"/sbin/dovecot", "--version").Output() // 2.4.1-4 (7d8c0e5759)
	if err != nil {
		return "", fmt.Errorf("which Dovecot: %w", err)
	}
	major, rest, _ := strings.Cut(string(version), ".")
	minor, _, _ := strings.Cut(rest, ".")
	return major + "." + minor, nil
}

// dovecotMaster is the command that runs a store which startDovecot has prepared.
func (c *Cluster) dovecotMaster(s *Store) *exec.Cmd {
	return exec.Command(DovecotDir+"/sbin/dovecot", "-F", "-c", c.in(s.short(), "dovecot.conf"))
}

// Token is one that says, to a Dovecot store, who a user is: a JSON Web Token, RFC
// 7519, under a key that the store has.
func (c *Cluster) Token(name string) string {
	part := func(claims map[string]any) string {
		text, err := json.Marshal(claims)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	now := time.Now()
	signed := part(map[string]any{"alg": "HS256", "typ": "JWT"}) + "." +
		part(map[string]any{"sub": name, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()})
	sum := hmac.New(sha256.New, []byte(c.ProxyPassword))
	sum.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(sum.Sum(nil))
}

// passwordLine is a line of a passwd-file. Not hashed: it is a test's password, and
// a good hash would cost every login a tenth of a second.
func passwordLine(name, password string) string {
	name = strings.ReplaceAll(name, "'", `\'`) // as Dovecot asks for it
	return fmt.Sprintf("%s:{PLAIN}%s\n", name, password)
}
