// Package sysexits names the kinds of failure that scripts can tell apart by
// a tool's exit status. An error is marked with its kind where the kind is
// known; only package command reads the mark.
package sysexits

import (
	"errors"
	"fmt"
)

// A Status is a process exit status of sysexits(3).
type Status int

const (
	OK          Status = 0
	Usage       Status = 64 // the command line is wrong
	DataErr     Status = 65 // input was read and refused
	NoInput     Status = 66 // an input file is missing or unreadable
	Unavailable Status = 69 // a service (directory, store) does not answer
	Software    Status = 70 // a defect of our own
	CantCreate  Status = 73 // an output file cannot be written
	TempFail    Status = 75 // try again later
	NoPerm      Status = 77 // the directory or a store refused us
	Config      Status = 78 // postern.conf is wrong
)

type marked struct {
	error
	status Status
}

func (m marked) Unwrap() error { return m.error }

// Wrap marks err as a failure of kind s; a nil err stays nil.
func (s Status) Wrap(err error) error {
	if err == nil {
		return nil
	}
	return marked{err, s}
}

// Errorf is fmt.Errorf with a mark.
func (s Status) Errorf(format string, args ...any) error {
	return s.Wrap(fmt.Errorf(format, args...))
}

// Of returns the outermost mark of err: 0 for nil, and Software where nobody
// knew better.
func Of(err error) Status {
	if err == nil {
		return OK
	}
	if m, ok := errors.AsType[marked](err); ok {
		return m.status
	}
	return Software
}
