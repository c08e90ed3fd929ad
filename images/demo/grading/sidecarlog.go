package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

const (
	logQueue    = 256 // messages; at the bound the oldest is dropped and counted
	logTime     = 2 * time.Second
	firstDelay  = 250 * time.Millisecond
	longestWait = 5 * time.Second
)

// SidecarLog sends messages to the sidecar's POST /log in the background, one after the other, and writes them to out.
//
// A message is repeated until the sidecar took it; while the sidecar is away the queue holds the newest ones.
type SidecarLog struct {
	url     string
	out     io.Writer
	client  *http.Client
	queue   chan string
	dropped atomic.Int64
	closing chan struct{} // closed by Close: send what is there, then end
	abort   context.CancelFunc
	done    chan struct{}
}

// newSidecarLog starts the sender; Close ends it.
func newSidecarLog(sidecarURL string, out io.Writer) *SidecarLog {
	ctx, abort := context.WithCancel(context.Background())
	l := &SidecarLog{
		url:     sidecarURL + "/log",
		out:     out,
		client:  &http.Client{Timeout: logTime, Transport: &http.Transport{Proxy: nil}},
		queue:   make(chan string, logQueue),
		closing: make(chan struct{}),
		abort:   abort,
		done:    make(chan struct{}),
	}
	go l.run(ctx)
	return l
}

// Send queues one message and returns at once.
func (l *SidecarLog) Send(format string, values ...interface{}) {
	message := fmt.Sprintf(format, values...)
	fmt.Fprintln(l.out, message)
	for {
		select {
		case l.queue <- message:
			return
		default:
		}
		select {
		case <-l.queue:
			l.dropped.Add(1)
		default: // the sender took one meanwhile
		}
	}
}

// Close sends what is queued, for at most the time given. It does not wait for a sidecar that is away.
func (l *SidecarLog) Close(limit time.Duration) {
	timer := time.AfterFunc(limit, l.abort)
	defer timer.Stop()
	close(l.closing)
	<-l.done
	l.abort()
}

func (l *SidecarLog) run(ctx context.Context) {
	defer close(l.done)
	for {
		select {
		case message := <-l.queue:
			l.deliver(ctx, message)
			continue
		default:
		}
		select {
		case message := <-l.queue:
			l.deliver(ctx, message)
		case <-l.closing:
			if len(l.queue) == 0 {
				return
			}
		}
	}
}

// deliver repeats one message until the sidecar took it or the log is closed, and says what was dropped before it.
func (l *SidecarLog) deliver(ctx context.Context, message string) {
	delay := firstDelay
	for !l.post(ctx, message) {
		select {
		case <-l.closing:
			return
		case <-time.After(delay):
		}
		if delay *= 2; delay > longestWait {
			delay = longestWait
		}
	}
	if count := l.dropped.Swap(0); count > 0 && !l.post(ctx, fmt.Sprintf("log messages dropped: %d, the sidecar was away", count)) {
		l.dropped.Add(count)
	}
}

// post is false if the message should be sent again. A message that the sidecar refuses (4xx) never gets better.
func (l *SidecarLog) post(ctx context.Context, message string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url, strings.NewReader(message))
	if err != nil {
		return true
	}
	request.Header.Set("Content-Type", "text/plain; charset=utf-8")
	answer, err := l.client.Do(request)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, 4096) // read to the end, so that the connection is used again
	if answer.StatusCode >= 500 || answer.StatusCode == http.StatusTooManyRequests {
		return false
	}
	if answer.StatusCode >= 300 {
		fmt.Fprintf(l.out, "the sidecar refused a log message: %s\n", answer.Status)
	}
	return true
}
