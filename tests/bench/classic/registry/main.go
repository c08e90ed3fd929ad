// The old registry's design, as a peer for scripts/bench: a slice behind a mutex, in memory only; one goroutine and one http.Post for
// each patch; heartbeats one registration after the other, with the pause of the interval after each. Usage: registry HOST:PORT
package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
	"time"
)

const interval = 3 * time.Second

type registration struct {
	ServiceName      string
	ServiceURL       string
	RequiredServices []string
	ServiceUpdateURL string
	HeartbeatURL     string
}

type entry struct {
	Name string
	URL  string
}

type patch struct {
	Added   []entry
	Removed []entry
}

type registry struct {
	registrations []registration
	mutex         sync.RWMutex
}

func (r *registry) add(given registration) error {
	r.mutex.Lock()
	r.registrations = append(r.registrations, given)
	r.mutex.Unlock()
	err := r.sendRequired(given)
	r.notify(patch{Added: []entry{{given.ServiceName, given.ServiceURL}}})
	return err
}

func (r *registry) remove(url string) bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for i, known := range r.registrations {
		if known.ServiceURL == url {
			r.registrations = append(r.registrations[:i:i], r.registrations[i+1:]...)
			go r.notify(patch{Removed: []entry{{known.ServiceName, known.ServiceURL}}})
			return true
		}
	}
	return false
}

func (r *registry) notify(full patch) {
	r.mutex.RLock()
	defer r.mutex.RUnlock()
	for _, known := range r.registrations {
		go func(known registration) {
			p := patch{pick(full.Added, known.RequiredServices), pick(full.Removed, known.RequiredServices)}
			if len(p.Added)+len(p.Removed) > 0 {
				if err := send(p, known.ServiceUpdateURL); err != nil {
					log.Println(err)
				}
			}
		}(known)
	}
}

func pick(entries []entry, names []string) (picked []entry) {
	for _, one := range entries {
		for _, name := range names {
			if one.Name == name {
				picked = append(picked, one)
			}
		}
	}
	return picked
}

func (r *registry) sendRequired(given registration) error {
	r.mutex.RLock()
	var p patch
	for _, known := range r.registrations {
		for _, name := range given.RequiredServices {
			if known.ServiceName == name {
				p.Added = append(p.Added, entry{known.ServiceName, known.ServiceURL})
			}
		}
	}
	r.mutex.RUnlock()
	if given.ServiceUpdateURL == "" {
		return nil
	}
	return send(p, given.ServiceUpdateURL)
}

// The old design never closed the answer's body; closing it here lets connections be used again, which is to its favour.
func send(p patch, url string) error {
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	answer, err := http.Post(url, "application/json", bytes.NewBuffer(body))
	if err == nil {
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
	}
	return err
}

func (r *registry) heartbeats() {
	for {
		r.mutex.RLock()
		present := append([]registration(nil), r.registrations...)
		r.mutex.RUnlock()
		if len(present) == 0 {
			time.Sleep(interval) // the old one span here
		}
		for _, known := range present {
			var wait sync.WaitGroup
			wait.Add(1)
			go func(known registration) {
				defer wait.Done()
				r.check(known)
			}(known)
			wait.Wait()
			time.Sleep(interval)
		}
	}
}

func (r *registry) check(known registration) {
	alive := true
	for attempt := 0; attempt < 3; attempt++ {
		answer, err := http.Get(known.HeartbeatURL)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				if !alive {
					r.add(known)
				}
				return
			}
		}
		if alive {
			alive = false
			r.remove(known.ServiceURL)
		}
		time.Sleep(time.Second)
	}
}

func (r *registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	switch {
	case request.URL.Path != "/services":
		w.WriteHeader(http.StatusNotFound)
	case request.Method == http.MethodPost:
		var given registration
		if json.NewDecoder(request.Body).Decode(&given) != nil || r.add(given) != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	case request.Method == http.MethodDelete:
		url, err := io.ReadAll(request.Body)
		if err != nil || !r.remove(string(url)) {
			w.WriteHeader(http.StatusInternalServerError)
		}
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func main() {
	r := &registry{}
	go r.heartbeats()
	log.Fatal(http.ListenAndServe(os.Args[1], r))
}
