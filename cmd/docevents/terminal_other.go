//go:build !darwin && !linux

package main

import "os"

// columns returns the width of a terminal, or 0 if it is unknown.
func columns(*os.File) int { return 0 }
