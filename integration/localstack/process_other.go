//go:build !unix

package localstack

import (
	"errors"
	"os"
	"os/exec"
)

// errNotUnix is the error of Start. The local stack needs Unix accounts, signals and
// process groups.
var errNotUnix = errors.New("the local stack runs on Unix systems only")

type account struct{}

func serverAccount() (*account, error)   { return nil, errNotUnix }
func (*account) own(string) error        { return nil }
func (*account) traversable(string) bool { return true }
func detach(*exec.Cmd, *account)         {}
func killTree(int) error                 { return errNotUnix }

var immediateShutdown = os.Kill
