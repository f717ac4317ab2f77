package contrib_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// steps are what an administrator does with the units, at a machine of his own,
// and proof is what he sees. It has no stores, so that a login ends at its user's:
// the map was read, and the store is not there.
const steps = `
say() { echo; echo "$*:"; }
quietly() { "$@" >/dev/null 2>&1; }
soon() { for _ in $(seq 400); do quietly "$@" && return; sleep 0.05; done; echo "in vain: $*"; return 1; }
ends() { ! "$@" | grep . ; }
answer() { curl -svk -m 10 --user "$1:secret" "$2" 2>&1 | sed -n 's/^< A[0-9]* \(NO [^ ]*\).*/\1/p' | tr -d '\r'; }
login() { answer "$1" imap://127.0.0.1/; }
tls() { answer nobody imaps://127.0.0.1/; }
journal() { journalctl --sync; journalctl -u imapfront -o cat "$@" | sed 's/ session=.* user=/ user=/; s/ cause=.*//'; }

cd /src/contrib/systemd
install -D -m 644 postern.sysusers.conf /etc/sysusers.d/postern.conf
quietly systemd-sysusers postern.conf
install -d /etc/postern /var/lib/postern
install -m 644 /site/postern.conf /site/people.ldif /site/imap.pem /etc/postern/
install -m 640 -g postern /site/imap.key /etc/postern/
install -m 644 *.service *.socket *.timer /etc/systemd/system/
install -m 644 imapfront.service /etc/systemd/system/imapfront@.service
systemctl daemon-reload

say by hand, as root
ldap2cdb && postmap-route && mailwhere joe
say by the units, after that
systemctl start ldap2cdb.service && quietly systemctl enable --now ldap2cdb.timer && echo built
stat -c '%U %n' /var/lib/postern /var/lib/postern/login.cdb
postmap-route && systemctl start postmap-route.service && echo tables && systemctl stop postmap-route.service
sed -i '1i textfile = "/proc/ldap2cdb.prom"' /etc/postern/postern.conf && rm /var/lib/postern/transport.cdb
quietly systemctl start ldap2cdb.service || ls /var/lib/postern/transport.cdb
sed -i 1d /etc/postern/postern.conf && systemctl start ldap2cdb.service
say for Prometheus, as its rules tell
rules=/src/contrib/prometheus/postern.rules.yml && mkdir -p /var/lib/prometheus/node-exporter
sed -n 's/^#     \(textfile = .*\)/\1/p' $rules | cat - /etc/postern/postern.conf >/run/told && cp /run/told /etc/postern/postern.conf
eval "$(sed -n 's/^#     \(ln .*\)/\1/p' $rules)"
systemctl start ldap2cdb.service && grep -h '^postern_ldap2cdb_last_run_success' /var/lib/prometheus/node-exporter/*.prom
sed -i /^textfile/d /etc/postern/postern.conf

say a front end
quietly systemctl enable --now imapfront.service && login joe && login nobody && tls
soon sh -c 'journalctl -u imapfront -p warning -o cat | grep joe'
journal -p warning -n 1
say reloaded
systemctl reload imapfront.service && soon sh -c 'journalctl -u imapfront | grep "settings are read again"' && echo reloaded
echo 'nonsense = 1' >>/etc/postern/postern.conf
quietly systemctl reload imapfront.service || journal -p err -t imapfront
sed -i '/^nonsense/d' /etc/postern/postern.conf
login joe
say killed
systemctl kill -s KILL imapfront.service
soon sh -c 'systemctl is-active imapfront && systemctl show -P NRestarts imapfront | grep 1' && login joe
say upgraded
quietly systemctl disable --now imapfront.service
systemctl start imapfront@a && login joe && systemctl start imapfront@b && login joe
soon ends systemctl list-units --no-legend --state=active imapfront@a.service && systemctl is-active imapfront@b && login joe
systemctl stop imapfront@b

say the port is taken for a while
mkdir -p /run/systemd/system/imapfront.service.d
printf '[Service]\nRestartSec=100ms\n' >/run/systemd/system/imapfront.service.d/soon.conf && systemctl daemon-reload
python3 -c 'import socket, time; s = socket.create_server(("127.0.0.1", 143)); time.sleep(3)' &
soon sh -c 'ss -ltn | grep 127.0.0.1:143'
quietly systemctl start imapfront.service
wait
soon systemctl is-active imapfront.service && login joe
systemctl stop imapfront.service

say with the ports held by systemd
quietly systemctl enable --now imapfront.socket imapfront.service && login joe && tls
quietly systemctl stop imapfront.service
login joe && systemctl is-active imapfront.service
printf '[Service]\nExecStartPre=/bin/sleep 0.15\n' >/run/systemd/system/imapfront.service.d/slow.conf && systemctl daemon-reload
echo 'nonsense = 1' >>/etc/postern/postern.conf
quietly systemctl restart imapfront.service || quietly login joe
soon sh -c '! systemctl is-active imapfront.socket' && echo closed
sed -i '/^nonsense/d' /etc/postern/postern.conf
systemctl start imapfront.socket imapfront.service && login joe
quietly systemctl disable --now imapfront.socket imapfront.service
say a process for each connection
quietly systemctl enable --now imapfront-inetd.socket && login joe && login nobody && tls
python3 -c 'import socket; [socket.create_connection(("127.0.0.1", 143)).close() for n in range(400)]'
soon sh -c 'curl -sS -m 10 imap://127.0.0.1/ -X NOOP' ; login joe
soon ends systemctl list-units --no-legend 'imapfront-inetd@*'
quietly systemctl disable --now imapfront-inetd.socket

say followed
quietly systemctl disable --now ldap2cdb.timer
quietly systemctl enable --now postmap-route.service ldap2cdb-watch.service && systemctl is-active ldap2cdb-watch
sed 's/imap1/imap2/' /site/people.ldif >/etc/postern/new && mv /etc/postern/new /etc/postern/people.ldif
soon sh -c 'mailwhere joe | grep imap2' && mailwhere joe
soon grep imap2 /var/lib/postern/transport.cdb && echo tables
systemctl reload ldap2cdb-watch postmap-route && echo reloaded
say without tables
systemctl stop postmap-route ldap2cdb-watch && rm /var/lib/postern/*.cdb
quietly systemctl start --no-block postmap-route.service
soon sh -c 'systemctl status postmap-route | grep "Status: .*no such file"' && systemctl is-active postmap-route
systemctl start ldap2cdb-watch && soon systemctl is-active postmap-route && ls /var/lib/postern/transport.cdb
say the directory is away
systemctl stop ldap2cdb-watch && mv /etc/postern/people.ldif /etc/postern/away
systemctl start ldap2cdb-watch && mailwhere joe
mv /etc/postern/away /etc/postern/people.ldif
journalctl --sync; journalctl -u ldap2cdb-watch -p warning -o cat -n 1 | sed 's/next try in .*/next try/'
soon sh -c 'systemctl status ldap2cdb-watch | grep "Status: .published"' && echo back
systemctl stop ldap2cdb-watch

say by the package
systemctl stop postmap-route && umount /usr/local/sbin
rm -r /etc/systemd/system/imapfront* /etc/systemd/system/ldap2cdb* /etc/systemd/system/postmap-route* /etc/sysusers.d
mkdir -p /run/usr/new /run/usr/work /var/lib/dpkg/info /var/lib/dpkg/updates /var/lib/dpkg/triggers && touch /var/lib/dpkg/status
mount -t overlay overlay -o lowerdir=/usr,upperdir=/run/usr/new,workdir=/run/usr/work /usr
dpkg --force-depends -i /site/postern_*.deb >/dev/null 2>&1 && dpkg -s postern | grep Status
quietly systemctl enable --now ldap2cdb-watch.service imapfront@a && mailwhere joe && login joe
sed 's/imap2/imap1/' /site/people.ldif >/etc/postern/people.ldif && soon sh -c 'mailwhere joe | grep imap1' && login joe
pid=$(systemctl show -P MainPID ldap2cdb-watch) && front=$(systemctl show -P MainPID imapfront@a)
dpkg --force-depends -i /site/postern_*.deb >/dev/null 2>&1 && [ "$pid" != "$(systemctl show -P MainPID ldap2cdb-watch)" ] && echo the watch is new
[ "$front" = "$(systemctl show -P MainPID imapfront@a)" ] && login joe
systemctl stop ldap2cdb-watch && chmod 750 /var/lib/postern && dpkg --force-depends -i /site/postern_*.deb >/dev/null 2>&1 && stat -c %a /var/lib/postern
dpkg -r postern >/dev/null 2>&1 && systemctl list-units --no-legend "imapfront*" "ldap2cdb*" && ends find /etc/systemd /usr/sbin -name '*imapfront*' -o -name '*ldap2cdb*'
ls /var/lib/postern/login.cdb && quietly dpkg -P postern && ls /etc/postern /var/lib/postern 2>&1

say failed
systemctl list-units --failed --no-legend "imapfront*" "ldap2cdb*" "postmap-route*"
`

const proof = `
by hand, as root:
imap1.example.org

by the units, after that:
built
postern /var/lib/postern
postern /var/lib/postern/login.cdb
tables
/var/lib/postern/transport.cdb

for Prometheus, as its rules tell:
postern_ldap2cdb_last_run_success 1

a front end:
NO [UNAVAILABLE]
NO [AUTHENTICATIONFAILED]
NO [AUTHENTICATIONFAILED]
msg="login failed" user=joe store=imap1.example.org code=UNAVAILABLE

reloaded:
reloaded
imapfront: /etc/postern/postern.conf:19: unknown key frontend.nonsense
NO [UNAVAILABLE]

killed:
NO [UNAVAILABLE]

upgraded:
NO [UNAVAILABLE]
NO [UNAVAILABLE]
active
NO [UNAVAILABLE]

the port is taken for a while:
NO [UNAVAILABLE]

with the ports held by systemd:
NO [UNAVAILABLE]
NO [AUTHENTICATIONFAILED]
NO [UNAVAILABLE]
active
closed
NO [UNAVAILABLE]

a process for each connection:
NO [UNAVAILABLE]
NO [AUTHENTICATIONFAILED]
NO [AUTHENTICATIONFAILED]
NO [UNAVAILABLE]

followed:
active
imap2.example.org
tables
reloaded

without tables:
activating
/var/lib/postern/transport.cdb

the directory is away:
imap2.example.org
ldap2cdb: stat /etc/postern/people.ldif: no such file or directory; maps not changed, next try
back

by the package:
Status: install ok installed
imap2.example.org
NO [UNAVAILABLE]
NO [UNAVAILABLE]
the watch is new
NO [UNAVAILABLE]
750
/var/lib/postern/login.cdb
ls: cannot access '/var/lib/postern': No such file or directory
/etc/postern:
imap.key
imap.pem
people.ldif
postern.conf

failed:
`

// TestUnderSystemd starts a machine that has this one's programs, and all else in
// memory, by its systemd.
func TestUnderSystemd(t *testing.T) {
	nspawn := need(t, "systemd-nspawn")
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	write(t, dir, "postern.conf", `[directory]
ldif = "/etc/postern/people.ldif"
poll-interval = "100ms"
[limits]
max-shrink = "100%"
[route]
domain = ["example.org"]
[store."imap1.example.org"]
address = "127.0.0.2"
[store."imap2.example.org"]
address = "127.0.0.3"
[frontend]
listen = ["imap://127.0.0.1:143", "imaps://127.0.0.1:993"]
cert = "/etc/postern/imap.pem"
key = "/etc/postern/imap.key"
allow-plaintext = true
capabilities = ["IMAP4rev1"]
failure-delay = "10ms"
`)
	write(t, dir, "people.ldif", `dn: uid=joe,dc=example,dc=org
objectClass: inetLocalMailRecipient
uid: joe
mailHost: imap1.example.org
mailLocalAddress: joe@example.org
`)
	certify(t, "imap.example.org", filepath.Join(dir, "imap.pem"), filepath.Join(dir, "imap.key"))
	run(t, "make", "-C", "..", "deb", "BIN="+dir)
	write(t, dir, "steps", steps)
	write(t, dir, "steps.service", `[Service]
ExecStart=/bin/sh /site/steps
StandardOutput=file:/site/out
StandardError=inherit
ExecStopPost=systemctl poweroff --force
`)
	ctx, stop := context.WithTimeout(t.Context(), 8*time.Minute)
	defer stop()
	machine := exec.CommandContext(ctx, nspawn, "--quiet", "--directory=/", "--volatile=yes", "--boot", "--register=no", "--keep-unit",
		"--machine=postern-contrib", "--private-network", "--console=pipe",
		"--bind="+dir+":/site", "--bind-ro="+abs(t, "..")+":/src", "--bind-ro="+bin+":/usr/local/sbin",
		"--bind-ro="+filepath.Join(dir, "steps.service")+":/etc/systemd/system/steps.service",
		"systemd.unit=basic.target", "systemd.wants=steps.service",
		"systemd.mask=systemd-networkd-wait-online.service", "systemd.mask=systemd-firstboot.service")
	var said bytes.Buffer
	machine.Stdout, machine.Stderr = &said, &said
	err := machine.Run()
	out, never := os.ReadFile(filepath.Join(dir, "out"))
	if never != nil {
		t.Skipf("no machine can be started on this one: %v\n%s", err, said.String())
	}
	if string(out) != proof {
		t.Errorf("%v, and not as it should be:\n%s", err, out)
	}
}
