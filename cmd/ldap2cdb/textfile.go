package main

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"postern/internal/mapfile"
	"postern/internal/roster"
	"postern/internal/sysexits"
	"postern/internal/transport"
)

// tablesBehind is how old Postfix's tables are, if they are not those of the maps, and
// none if they are, or of the maps before ours: they are made behind us. It is false
// where there are none that tell.
func (b *build) tablesBehind(last set) (age time.Duration, are bool) {
	if b.conf.Route.Text {
		return 0, false
	}
	table, err := mapfile.Open(filepath.Join(b.conf.TablesIn(), transport.Transport+".cdb"), false)
	if err != nil {
		return 0, false
	}
	defer table.Close()
	story := table.Story()
	if of := story.Source; of == b.before || of == last.pair() {
		return 0, true
	}
	return time.Since(story.Built), true
}

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
	last, err := b.lastMaps()
	defer last.close()
	if err == nil && last.pair() != "" {
		story := last.story()
		built := story.Built
		if succeeded {
			built = time.Now() // a directory in which nothing happens leaves the maps as they are
		}
		metric("last_success_timestamp_seconds", "When the maps in use were last known to be right.", "", float64(built.Unix()))
		metric("accounts", "Accounts in the maps in use.", "", float64(story.Accounts))
		metric("conflicts", "Names that several entries claim.", "", float64(story.Conflicts))
		metric("names", "Names in the maps in use.", `{map="login"}`, float64(story.Records))
		metric("names", "", `{map="address"}`, float64(last[roster.Address].Story().Records))
		if behind, are := b.tablesBehind(last); are {
			metric("tables_behind_seconds", "Of Postfix's tables that are not those of the maps, how old they are; else 0.", "", behind.Seconds())
		}
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
