package docevents

import "github.com/docevents/docevents-go/internal/spool"

// WithSpoolFiles has the spool use files, after WithSpool.
func WithSpoolFiles(files spool.FS) Option { return func(c *config) { c.spoolFiles = files } }
