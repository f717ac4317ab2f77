# make            the four tools, static, in bin/ (BIN)
# make install    them and their pages below PREFIX (DESTDIR for packagers)
# make deb        a Debian package of them, with units, account and completions, in bin/
# make test       every test; as root on Debian with the real servers, too
# make race       the tests of what is in internal/ and cmd/, looking for data races
# make check      gofmt, go vet, staticcheck, shellcheck, mandoc -Tlint
# make fuzz       each fuzz test for a minute (FUZZTIME): half an hour
# make bench      side by side with other mail proxies and tools: bin/bench.md;
#                 half an hour as root on Debian, bench-quick two minutes
# make demo       the whole idea on this terminal: no root, no packages
# make cluster    slapd, two Cyrus, a Dovecot, Postfix on loopback, to play with
PREFIX  ?= /usr/local
BIN     ?= bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

GO      ?= go
# Pages are ours, not generated: without the tag every start pays for that.
TAGS    := -tags urfave_cli_no_docs
LDFLAGS := -s -w -X postern/internal/command.Version=$(VERSION)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 60s

all:
	CGO_ENABLED=0 $(GO) build -trimpath $(TAGS) -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

# By rename: a program that is started just now is the old or the new, and whole.
install: all
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/bin $(DESTDIR)/etc/postern $(DESTDIR)/var/lib/postern
	for tool in sbin/ldap2cdb sbin/imapfront sbin/postmap-route bin/mailwhere; do \
		install $(BIN)/$${tool#*/} $(DESTDIR)$(PREFIX)/$$tool.new && \
		mv -f $(DESTDIR)$(PREFIX)/$$tool.new $(DESTDIR)$(PREFIX)/$$tool || exit; done
	for page in man/*.[1-9]; do \
		install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/} || exit; done

deb:
	rm -f $(BIN)/postern_*.deb
	contrib/debian/package $(VERSION) $(BIN)

# -count=1: the result cache does not know the tools that tests build and run.
# -timeout: of one package, on a machine that does much else.
test: packages
	$(GO) test -count=1 -timeout 40m $(TESTFLAGS) ./...

race: packages
	CGO_ENABLED=1 $(GO) test -race -count=1 -timeout 40m $(TESTFLAGS) ./internal/... ./cmd/...

check: packages
	test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	shellcheck $$(git ls-files ':!*.txtar' | xargs grep -lE '^#!.*sh( |$$)')
	mandoc -Tlint -Wwarning man/*.[1-9]

# What Debian packages the tests and checks need; without root it says what is
# left out.
packages:
	$(GO) run ./tools/cluster install

bench:
	$(GO) run ./tools/bench

bench-quick:
	$(GO) run ./tools/bench --quick

fuzz:
	@for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$package || exit; done; done

demo: all
	@CGO_ENABLED=0 $(GO) build -trimpath $(TAGS) -o $(BIN)/ ./tools/demo ./tools/orgmaker
	@$(BIN)/demo

cluster: all
	$(GO) run ./tools/cluster start

cluster-stop:
	$(GO) run ./tools/cluster stop

clean:
	rm -rf $(BIN)

.PHONY: all install deb test race check packages bench bench-quick fuzz demo cluster cluster-stop clean
