package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"github.com/emersion/go-smtp"

	"postern/internal/config"
)

// A store holds mailboxes in memory: users come by IMAP, mail by LMTP.
type store struct {
	name       string
	tlsMode    string // as postern.conf has it
	imap, lmtp net.Listener

	server  *imapserver.Server
	lmtpd   *smtp.Server
	memory  *imapmemserver.Server
	mutex   sync.Mutex
	inboxes map[string]*inbox
}

type inbox struct {
	user     *imapmemserver.User
	messages [][]byte
	logins   int
}

// newStore starts a store at two free ports, imapPort and lmtpPort if they are.
func newStore(name, tlsMode string, certificate tls.Certificate, imapPort, lmtpPort int) (*store, error) {
	st := &store{name: name, tlsMode: tlsMode, memory: imapmemserver.New(), inboxes: map[string]*inbox{}}
	var err error
	if st.imap, err = listen(imapPort); err != nil {
		return nil, err
	}
	if st.lmtp, err = listen(lmtpPort); err != nil {
		return nil, errors.Join(err, st.imap.Close())
	}
	silent := log.New(io.Discard, "", 0)
	secret := &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"imap"}}

	st.server = imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return &session{st.memory.NewSession().(imapserver.SessionIMAP4rev2), st}, nil, nil
		},
		Caps:      imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapIMAP4rev2: {}},
		TLSConfig: secret,
		Logger:    silent,
	})
	listener := st.imap
	if tlsMode == config.TLSImplicit {
		listener = tls.NewListener(st.imap, secret)
	}
	go st.server.Serve(listener)

	st.lmtpd = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &lmtpSession{store: st}, nil }))
	st.lmtpd.LMTP = true
	st.lmtpd.Domain = name
	st.lmtpd.ErrorLog = silent
	go st.lmtpd.Serve(st.lmtp)
	return st, nil
}

func (st *store) close() error { return errors.Join(st.server.Close(), st.lmtpd.Close()) }

// listen takes a port of loopback, any free one if the wanted one is not.
func listen(port int) (net.Listener, error) {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return net.Listen("tcp", "127.0.0.1:0")
	}
	return listener, nil
}

// freePort finds a port for imapfront to take, soon: that one, if it is free. Another
// tour at the same time does not find it, for it is held at another address.
func (s *site) freePort(port int) (int, error) {
	for {
		held, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", port))
		if err != nil && port == 0 {
			return 0, err
		}
		if err == nil {
			s.held = append(s.held, held)
			if listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", portOf(held))); err == nil {
				return portOf(held), listener.Close()
			}
		}
		port = 0
	}
}

func portOf(listener net.Listener) int { return listener.Addr().(*net.TCPAddr).Port }

func (st *store) addUser(uid string) error {
	user := imapmemserver.NewUser(uid, password)
	if err := user.Create("INBOX", nil); err != nil {
		return err
	}
	st.memory.AddUser(user)
	st.mutex.Lock()
	defer st.mutex.Unlock()
	st.inboxes[uid] = &inbox{user: user}
	return nil
}

// logins tells how often a user has logged in here.
func (st *store) logins(uid string) int {
	st.mutex.Lock()
	defer st.mutex.Unlock()
	if inbox := st.inboxes[uid]; inbox != nil {
		return inbox.logins
	}
	return 0
}

// file puts a message into a user's INBOX.
func (st *store) file(uid string, message []byte) error {
	st.mutex.Lock()
	defer st.mutex.Unlock()
	inbox := st.inboxes[uid]
	if inbox == nil {
		return noMailbox
	}
	inbox.messages = append(inbox.messages, message)
	_, err := inbox.user.Append("INBOX", bytes.NewReader(message), &imap.AppendOptions{})
	return err
}

// handOver moves a mailbox to another store.
func (st *store) handOver(uid string, to *store) error {
	if err := to.addUser(uid); err != nil {
		return err
	}
	st.mutex.Lock()
	messages := slices.Clone(st.inboxes[uid].messages)
	delete(st.inboxes, uid)
	st.mutex.Unlock()
	for _, message := range messages {
		if err := to.file(uid, message); err != nil {
			return err
		}
	}
	return nil
}

// A session is the memory server's, which knows everybody who ever had a
// mailbox here. This one lets in who still has, and counts.
type session struct {
	imapserver.SessionIMAP4rev2
	store *store
}

func (s *session) Login(uid, password string) error {
	s.store.mutex.Lock()
	defer s.store.mutex.Unlock()
	inbox := s.store.inboxes[uid]
	if inbox == nil {
		return imapserver.ErrAuthFailed
	}
	err := s.SessionIMAP4rev2.Login(uid, password)
	if err == nil {
		inbox.logins++
	}
	return err
}

// An lmtpSession takes mail for mailboxes, the local parts of its recipients.
type lmtpSession struct {
	store *store
	to    []string
}

var noMailbox = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such mailbox here"}

func (s *lmtpSession) Mail(string, *smtp.MailOptions) error { return nil }

func (s *lmtpSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	uid, _, _ := strings.Cut(to, "@")
	uid, _, _ = strings.Cut(uid, "+")
	s.store.mutex.Lock()
	defer s.store.mutex.Unlock()
	if s.store.inboxes[uid] == nil {
		return noMailbox
	}
	s.to = append(s.to, uid)
	return nil
}

func (s *lmtpSession) Data(r io.Reader) error {
	message, err := io.ReadAll(r)
	for _, uid := range s.to {
		err = errors.Join(err, s.store.file(uid, message))
	}
	return err
}

func (s *lmtpSession) Reset()        { s.to = nil }
func (s *lmtpSession) Logout() error { return nil }
