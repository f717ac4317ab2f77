package trust

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/authority"
)

// The system's authorities are those that there are now, also of a second look.
func TestSystem(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SSL_CERT_FILE", filepath.Join(dir, "bundle.pem"))
	t.Setenv("SSL_CERT_DIR", filepath.Join(dir, "none")+":"+dir)
	if System() != nil {
		t.Error("authorities out of nothing")
	}
	for _, name := range []string{"bundle.pem", "bundle.pem", "added.pem"} {
		ca, err := authority.New("tests")
		if err == nil {
			err = ca.Write(filepath.Join(dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
		pair, err := ca.Issue("imap.example.org")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: System()}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFileSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"key\n": ": no certificate in it",
		"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n": ": x509: malformed ",
	} {
		file := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := File(file); err == nil || !strings.Contains(err.Error(), file+want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
