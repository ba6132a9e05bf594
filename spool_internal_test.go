package docevents

import "github.com/docevents/docevents-go/internal/spool"

// WithSpoolFiles makes the spool use files. It must come after WithSpool.
func WithSpoolFiles(files spool.FS) Option { return func(c *config) { c.spoolFiles = files } }
