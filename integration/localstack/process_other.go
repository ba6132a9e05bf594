//go:build !unix

package localstack

import (
	"errors"
	"os"
	"os/exec"
)

// The stack needs Unix accounts, signals and process groups. On other systems Start
// returns this error.
var errNotUnix = errors.New("the local stack runs on Unix systems only")

type account struct{}

func serverAccount() (*account, error)   { return nil, errNotUnix }
func (*account) own(string) error        { return nil }
func (*account) traversable(string) bool { return true }
func detach(*exec.Cmd, *account)         {}
func killTree(int) error                 { return errNotUnix }

var immediateShutdown = os.Kill
