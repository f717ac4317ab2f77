package slapd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Active Directory's count of changes, as far as a poll looks at it, on a server
// that doesn't count by itself.
var counting = []string{
	"attributetype ( 1.3.6.1.4.1.32473.1.1 NAME 'uSNChanged' EQUALITY integerMatch ORDERING integerOrderingMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )",
	"attributetype ( 1.3.6.1.4.1.32473.1.2 NAME 'highestCommittedUSN' SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 )",
	"attributetype ( 1.3.6.1.4.1.32473.1.3 NAME 'dsServiceName' SYNTAX 1.3.6.1.4.1.1466.115.121.1.12 )",
	"attributetype ( 1.3.6.1.4.1.32473.1.4 NAME 'invocationId' SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 )",
	"attributetype ( 1.3.6.1.4.1.32473.1.6 NAME 'defaultNamingContext' SYNTAX 1.3.6.1.4.1.1466.115.121.1.12 )",
	"attributetype ( 1.3.6.1.4.1.32473.1.5 NAME 'objectGUID' SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 )",
	"objectclass ( 1.3.6.1.4.1.32473.2.1 NAME 'counted' AUXILIARY MAY ( uSNChanged $ invocationId $ objectGUID ) )",
}

// Counting are the settings of a server that counts as Active Directory does: the
// people from 101 on, and 1000 is the highest number that it tells.
func Counting(t *testing.T, people, invocation string) Settings {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root.ldif")
	// The server's own domain is not that of the people.
	err := os.WriteFile(root, []byte("dn:\nhighestCommittedUSN: 1000\ndsServiceName: cn=NTDS Settings,dc=example,dc=org\ndefaultNamingContext: cn=NTDS Settings,dc=example,dc=org\n"), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	usn := 100
	var ldif strings.Builder
	for line := range strings.Lines(people) {
		if ldif.WriteString(line); strings.HasPrefix(line, "objectClass: inetLocal") {
			usn++
			fmt.Fprintf(&ldif, "objectClass: counted\nuSNChanged: %d\nobjectGUID: GUID-%011d\n", usn, usn)
		}
	}
	fmt.Fprintf(&ldif, "dn: cn=NTDS Settings,dc=example,dc=org\nobjectClass: device\nobjectClass: counted\ncn: NTDS Settings\ninvocationId: %s\n\n", invocation)
	return Settings{LDIF: ldif.String(), Global: append(slices.Clone(counting), "rootDSE "+root),
		Database: []string{"index uSNChanged eq"}}
}
