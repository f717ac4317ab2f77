package main

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"postern/internal/roster"
	"postern/internal/sysexits"
)

// writeTextfile tells node_exporter's textfile collector how it went. What
// counts is how old the maps are that are in use, so after a failure it is
// they who are asked. The report is that of this run, nil if it made none.
func (b *build) writeTextfile(report *roster.Report, succeeded bool) error {
	if b.conf.Textfile == "" {
		return nil
	}
	var out bytes.Buffer
	metric := func(name, help, labels string, value float64) {
		if help != "" {
			fmt.Fprintf(&out, "# HELP postern_ldap2cdb_%s %s\n# TYPE postern_ldap2cdb_%s gauge\n", name, help, name)
		}
		fmt.Fprintf(&out, "postern_ldap2cdb_%s%s %.15g\n", name, labels, value)
	}
	metric("last_run_timestamp_seconds", "When ldap2cdb last tried.", "", float64(time.Now().Unix()))
	metric("last_run_success", "Whether it succeeded.", "", map[bool]float64{true: 1}[succeeded])
	if last, err := b.lastMaps(); err == nil && last.login != nil && last.address != nil {
		story := last.login.Story()
		built := story.Built
		if succeeded {
			built = time.Now() // a directory in which nothing happens leaves the maps as they are
		}
		metric("last_success_timestamp_seconds", "When the maps in use were last known to be right.", "", float64(built.Unix()))
		metric("accounts", "Accounts in the maps in use.", "", float64(story.Accounts))
		metric("conflicts", "Names that several entries claim.", "", float64(story.Conflicts))
		metric("names", "Names in the maps in use.", `{map="login"}`, float64(story.Records))
		metric("names", "", `{map="address"}`, float64(last.address.Story().Records))
		last.close()
	}
	if report != nil {
		metric("skipped", "Entries that made no account.", "", float64(report.Skipped.Count))
		metric("build_seconds", "How long it took.", "", report.Seconds)
		help := "Login names that live on a store."
		for _, store := range slices.Sorted(maps.Keys(report.Stores)) {
			metric("store_names", help, fmt.Sprintf("{store=%q}", store), float64(report.Stores[store].Names))
			help = ""
		}
	}
	if err := renameio.WriteFile(b.conf.Textfile, out.Bytes(), 0o644, renameio.WithTempDir(filepath.Dir(b.conf.Textfile)), renameio.IgnoreUmask()); err != nil {
		return sysexits.CantCreate.Errorf("textfile %s: %w", b.conf.Textfile, err)
	}
	return nil
}
