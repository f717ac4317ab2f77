// Package trust reads the certificates of authorities: those of a PEM file, or the
// system's. A Go program reads the system's once in its life; ours live for months,
// and an authority that the site has added meanwhile is trusted as soon as it is in
// use.
package trust

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"postern/internal/sysexits"
)

// File reads the authorities of a PEM file.
func File(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, sysexits.NoInput.Errorf("ca-file: %w", err)
	}
	pool := x509.NewCertPool()
	if pool.AppendCertsFromPEM(text) {
		return pool, nil
	}
	if block, _ := pem.Decode(text); block != nil && block.Type == "CERTIFICATE" {
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, sysexits.Config.Errorf("ca-file: %s: %w", file, err)
		}
	}
	return nil, sysexits.Config.Errorf("ca-file: %s: no certificate in it", file)
}

// Advised says of an authority that is not believed which one it is, and where it would
// be named.
func Advised(err error) error {
	if unknown, is := errors.AsType[x509.UnknownAuthorityError](err); is && unknown.Cert != nil {
		return fmt.Errorf("%w, %q: if it is yours, name its certificate in ca-file", unknown, unknown.Cert.Issuer)
	}
	return err
}

// Where systems have their authorities: the first of the files that is there, and
// all of the folders, as crypto/x509 has it.
var (
	files = []string{
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
		"/etc/pki/tls/cacert.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
	}
	folders = []string{"/etc/ssl/certs", "/etc/pki/tls/certs"}
)

func places() (candidates, dirs []string) {
	candidates, dirs = files, folders
	if file := os.Getenv("SSL_CERT_FILE"); file != "" {
		candidates = []string{file}
	}
	if list := os.Getenv("SSL_CERT_DIR"); list != "" {
		dirs = strings.Split(list, ":")
	}
	return candidates, dirs
}

// System reads the system's authorities as they are now. Where there are none to be
// found it is nil: crypto/x509 looks for itself then.
func System() *x509.CertPool {
	candidates, dirs := places()
	pool, found := x509.NewCertPool(), false
	for _, file := range candidates {
		if text, err := os.ReadFile(file); err == nil {
			found = pool.AppendCertsFromPEM(text)
			break
		}
	}
	for _, dir := range dirs {
		entries, _ := os.ReadDir(dir)
		for _, entry := range entries {
			file := filepath.Join(dir, entry.Name())
			if target, err := os.Readlink(file); err == nil && !strings.Contains(target, "/") {
				continue // OpenSSL's name for a neighbour
			}
			if text, err := os.ReadFile(file); err == nil {
				found = pool.AppendCertsFromPEM(text) || found
			}
		}
	}
	if !found {
		return nil
	}
	return pool
}

// SystemFiles are the names to look at to learn that the system's authorities are
// others.
func SystemFiles() []string {
	names, dirs := places()
	names = append([]string(nil), names...)
	for _, dir := range dirs {
		names = append(names, dir+"/.") // that folder, and not a file in the one above
	}
	return names
}
