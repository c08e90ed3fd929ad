package main

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// settings is what the environment says.
type settings struct {
	host       string // empty: all interfaces
	port       int
	sidecarURL string // without a slash at the end
}

// readSettings reads the environment; an error names the variable and what to write there.
func readSettings(getenv func(string) string) (settings, error) {
	port, err := strconv.Atoi(orDefault(getenv("PORT"), "6000"))
	if err != nil || port < 0 || port > 65535 {
		return settings{}, fmt.Errorf("PORT must be a number from 0 to 65535, not %q", getenv("PORT"))
	}
	sidecar, err := url.Parse(orDefault(getenv("PILLION_URL"), "http://127.0.0.1:7071"))
	if err != nil || sidecar.Scheme != "http" || sidecar.Host == "" {
		return settings{}, fmt.Errorf("PILLION_URL must be like http://127.0.0.1:7071, not %q", getenv("PILLION_URL"))
	}
	return settings{getenv("HOST"), port, strings.TrimRight(sidecar.String(), "/")}, nil
}

// address is where the service listens.
func (s settings) address() string {
	return net.JoinHostPort(s.host, strconv.Itoa(s.port))
}

// localAddress is where a process on the same machine finds it.
func (s settings) localAddress() string {
	switch s.host {
	case "", "0.0.0.0", "::":
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
	}
	return s.address()
}

func orDefault(value, standard string) string {
	if value == "" {
		return standard
	}
	return value
}
