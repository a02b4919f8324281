// Command pause does what the harness needs of a container: nothing, or a little talk over TCP.
//
//	pause                 sleeps until it is told to end; also what holds a pod's namespaces open
//	pause serve <port>    and answers every connection with the name of its host
//	pause ask <address>   prints what such an answer says, and ends
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if len(os.Args) == 3 {
		switch os.Args[1] {
		case "serve":
			check(serve(os.Args[2]))
		case "ask":
			check(ask(os.Args[2]))
			return
		}
	}
	done := make(chan os.Signal, 1)
	signal.Notify(done, syscall.SIGTERM, syscall.SIGINT)
	<-done
}

func serve(port string) error {
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	name, err := os.Hostname()
	go func() {
		for {
			connection, err := listener.Accept()
			check(err)
			fmt.Fprintln(connection, name)
			connection.Close()
		}
	}()
	return err
}

func ask(address string) error {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, connection)
	return err
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
