// GradingService: students and their grades over HTTP, kept in memory.
//
// It knows nothing of how it is found. It listens on a port and writes its log to the sidecar beside it.
//
//	grading              serve until SIGTERM
//	grading healthcheck  exit 0 if the service on this port is alive, else 1 with the reason
//
// Environment: PORT (default 6000, 0 = any free one), HOST (default: all interfaces),
// PILLION_URL (the sidecar, default http://127.0.0.1:7071).
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	shutdownTime = 5 * time.Second // for requests in flight
	flushTime    = 2 * time.Second // for log messages not sent yet
)

func main() {
	os.Exit(run(os.Args[1:]))
}

// run starts what the arguments name and returns the exit code: 0 clean, 1 run-time failure, 2 configuration.
func run(args []string) int {
	settings, err := readSettings(os.Getenv)
	if err != nil {
		fmt.Fprintln(os.Stderr, "grading:", err)
		return 2
	}
	switch {
	case len(args) == 0:
		err = serve(settings)
	case len(args) == 1 && args[0] == "healthcheck":
		err = checkHealth(settings)
	default:
		fmt.Fprintln(os.Stderr, "grading: usage: grading [healthcheck]")
		return 2
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "grading:", err)
		return 1
	}
	return 0
}

// serve answers requests until SIGTERM or SIGINT, then finishes what is in flight.
func serve(settings settings) error {
	stop, restore := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer restore()

	listener, err := net.Listen("tcp", settings.address())
	if err != nil {
		return fmt.Errorf("cannot listen: %w; set PORT to a free port", err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	fmt.Printf("listening on http://127.0.0.1:%d\n", port)

	events := newSidecarLog(settings.sidecarURL, os.Stdout)
	book := newGradebook(seedStudents())
	server := &http.Server{
		Handler:           newHandler(book, events),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}
	events.Send("started: %d students, port %d", len(book.List()), port)

	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err = <-failed: // the listener broke: nobody asked for the end
	case <-stop.Done():
		restore() // a second signal ends the process at once
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
		defer cancel()
		err = server.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close() // the slow ones had their time
		}
	}
	events.Send("stopped")
	events.Close(flushTime)
	return err
}

// checkHealth asks the running service whether it is alive.
func checkHealth(settings settings) error {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{Proxy: nil}}
	answer, err := client.Get("http://" + settings.localAddress() + "/livez")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("/livez answered %s", answer.Status)
	}
	return nil
}
