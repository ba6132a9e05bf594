//go:build !unix || aix || solaris

package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

func lock(*os.File, bool) error {
	return fmt.Errorf("no file locks on this platform: %w", errors.ErrUnsupported)
}

func private(fs.FileInfo) bool { return true }
