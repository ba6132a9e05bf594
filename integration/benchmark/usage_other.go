//go:build !unix

package main

import (
	"os"
	"time"
)

// None is measured here; the local stack runs on Unix systems only, too.
func cpuTime() time.Duration { return 0 }
func peakMemory() int64      { return 0 }

func childPeak(*os.ProcessState) int64 { return 0 }
