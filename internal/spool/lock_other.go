//go:build !unix || aix || solaris

package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

const shared, exclusive = 0, 0

// lock always fails, so nothing can be appended.
func lock(*os.File, int) error {
	return fmt.Errorf("no file locks on this platform: %w", errors.ErrUnsupported)
}

func private(fs.FileInfo) bool { return true }
