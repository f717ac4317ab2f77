// Package built has the programs of this tree built for tests that run them.
package built

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
)

// Main is the TestMain of a package: it builds programs into a folder of which it
// tells, runs the tests, and removes the folder.
//
//	var bin string
//
//	func TestMain(m *testing.M) { os.Exit(built.Main(&bin, m.Run, "postern/cmd/...")) }
func Main(bin *string, run func() int, packages ...string) (status int) {
	dir, err := os.MkdirTemp("", "postern-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755) // daemons run them as other users
	build := exec.Command("go", slices.Concat([]string{"build", "-tags", "urfave_cli_no_docs", "-o", dir}, packages)...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, out)
		return 1
	}
	*bin = dir
	return run()
}
