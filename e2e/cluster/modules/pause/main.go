// Command pause sleeps until it is told to end: what holds a pod's namespaces open, and a pod that does nothing.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	done := make(chan os.Signal, 1)
	signal.Notify(done, syscall.SIGTERM, syscall.SIGINT)
	<-done
}
