// The old log service's design, as a peer for scripts/bench: each POST /log is written to a file by a log.Logger, without a sync.
// The old one opened the file for each line; here it stays open, which is to its favour. Usage: log HOST:PORT FILE
package main

import (
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	file, err := os.OpenFile(os.Args[2], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	lines := log.New(file, "go ", log.LstdFlags)
	http.HandleFunc("/log", func(w http.ResponseWriter, request *http.Request) {
		if request.Method != http.MethodPost {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		line, err := io.ReadAll(request.Body)
		if err != nil || len(line) == 0 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		lines.Printf("%v\n", string(line))
	})
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
