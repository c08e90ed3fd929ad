package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

const maxBody = 64 << 10 // bytes of a request

// handler maps requests to the gradebook:
//
//	GET  /students              the list
//	GET  /students/{id}         one student with grades
//	POST /students/{id}/grades  a grade, {"Title":"Quiz 3","Type":"Quiz","Score":87}
//	GET  /livez                 200 while the process serves
type handler struct {
	book   *Gradebook
	events *SidecarLog
}

func newHandler(book *Gradebook, events *SidecarLog) http.Handler {
	return &handler{book, events}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, body, err := h.answer(w, r)
	if err != nil {
		var fault *Fault
		if !errors.As(err, &fault) {
			fault = &Fault{http.StatusInternalServerError, "internal", "GradingService failed: " + err.Error(), ""}
		}
		h.events.Send("bad request: %s %s: %d %s", r.Method, shortPath(r), fault.Status, fault.Message)
		status, body = fault.Status, fault
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// An error here is a client that went away: there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(body)
}

// answer returns the status and the body of the answer, or a Fault.
func (h *handler) answer(w http.ResponseWriter, r *http.Request) (int, interface{}, error) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case r.URL.Path == "/livez":
		return http.StatusOK, map[string]string{"Status": "ok"}, allow(w, r, "GET")
	case r.URL.Path == "/students":
		return http.StatusOK, h.book.List(), allow(w, r, "GET")
	case len(parts) == 2 && parts[0] == "students" && parts[1] != "":
		return h.showStudent(w, r, parts[1])
	case len(parts) == 3 && parts[0] == "students" && parts[2] == "grades":
		return h.addGrade(w, r, parts[1])
	}
	return 0, nil, &Fault{http.StatusNotFound, "no_such_path",
		"There is nothing at this path: see /students, /students/{id} and /students/{id}/grades.", ""}
}

func (h *handler) showStudent(w http.ResponseWriter, r *http.Request, idText string) (int, interface{}, error) {
	if err := allow(w, r, "GET"); err != nil {
		return 0, nil, err
	}
	id, err := parseID(idText)
	if err != nil {
		return 0, nil, err
	}
	student, err := h.book.Find(id)
	return http.StatusOK, student, err
}

func (h *handler) addGrade(w http.ResponseWriter, r *http.Request, idText string) (int, interface{}, error) {
	if err := allow(w, r, "POST"); err != nil {
		return 0, nil, err
	}
	id, err := parseID(idText)
	if err != nil {
		return 0, nil, err
	}
	if _, err = h.book.Find(id); err != nil {
		return 0, nil, err
	}
	grade, err := readGrade(w, r)
	if err != nil {
		return 0, nil, err
	}
	student, err := h.book.Add(id, grade)
	if err != nil {
		return 0, nil, err
	}
	h.events.Send("grade added: %s %s, %s, %v", student.FirstName, student.LastName, grade.Title, grade.Score)
	return http.StatusCreated, grade, nil
}

// readGrade reads one JSON object. Keys it does not know are ignored.
func readGrade(w http.ResponseWriter, r *http.Request) (Grade, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return Grade{}, &Fault{http.StatusUnsupportedMediaType, "wrong_type", "Send the grade with Content-Type: application/json.", ""}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return Grade{}, &Fault{http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("A grade must be smaller than %d bytes.", maxBody), ""}
	}
	if err != nil {
		return Grade{}, &Fault{http.StatusBadRequest, "bad_body", "The body broke off: send it again.", ""}
	}
	var sent struct {
		Title string
		Type  string
		Score *float64
	}
	err = json.Unmarshal(body, &sent)
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) && wrongType.Field == "Score" {
		return Grade{}, badField("Score", "Score must be a number from 0 to 100.")
	}
	if errors.As(err, &wrongType) && wrongType.Field != "" {
		return Grade{}, badField(wrongType.Field, wrongType.Field+" must be a text.")
	}
	if err != nil {
		return Grade{}, &Fault{http.StatusBadRequest, "bad_json", `The body is not a grade such as {"Title":"Quiz 3","Type":"Quiz","Score":87}.`, ""}
	}
	return newGrade(sent.Title, sent.Type, sent.Score)
}

// allow is nil for the method given, and HEAD where GET is; else a 405 with the Allow header set.
func allow(w http.ResponseWriter, r *http.Request, method string) error {
	if r.Method == method || (method == "GET" && r.Method == "HEAD") {
		return nil
	}
	w.Header().Set("Allow", method)
	return &Fault{http.StatusMethodNotAllowed, "wrong_method", "Use " + method + " here.", ""}
}

func parseID(text string) (int, error) {
	id, err := strconv.Atoi(text)
	if err != nil {
		return 0, noStudent(strconv.QuoteToASCII(shorten(text, 20)))
	}
	return id, nil
}

// shortPath is the path as it was sent (so a line feed in it stays %0A), short enough for a log line.
func shortPath(r *http.Request) string { return shorten(r.URL.EscapedPath(), 200) }

func shorten(text string, size int) string {
	if len(text) <= size {
		return text
	}
	return text[:size] + "..."
}
