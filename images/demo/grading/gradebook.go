package main

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

const (
	maxTitle  = 100  // characters
	maxGrades = 1000 // a student: memory and answers stay bounded
)

// Grade is one result of a student.
type Grade struct {
	Title string
	Type  string // Quiz, Test or Exam
	Score float64
}

// Student is one student as the list shows it.
type Student struct {
	ID        int
	FirstName string
	LastName  string
	Average   float64 // of all scores, rounded to one decimal; 0 without grades
}

// StudentGrades is one student with all grades, oldest first.
type StudentGrades struct {
	Student
	Grades []Grade
}

// Fault is a request that cannot be met: the status and the JSON body of the answer.
type Fault struct {
	Status  int    `json:"-"`
	Code    string `json:"Error"`
	Message string
	Field   string `json:",omitempty"`
}

func (f *Fault) Error() string { return f.Message }

// Gradebook holds all students. It is safe for concurrent use.
type Gradebook struct {
	mutex    sync.RWMutex
	students []StudentGrades // IDs count from 1, so student N is at N-1
}

func newGradebook(students []StudentGrades) *Gradebook {
	book := &Gradebook{students: students}
	for i := range book.students {
		book.students[i].ID = i + 1
		book.students[i].Average = average(book.students[i].Grades)
	}
	return book
}

// List returns all students by ID, without their grades.
func (b *Gradebook) List() []Student {
	b.mutex.RLock()
	defer b.mutex.RUnlock()
	list := make([]Student, 0, len(b.students))
	for _, student := range b.students {
		list = append(list, student.Student)
	}
	return list
}

// Find returns one student with a copy of the grades, or a 404.
func (b *Gradebook) Find(id int) (StudentGrades, error) {
	b.mutex.RLock()
	defer b.mutex.RUnlock()
	student, err := b.at(id)
	if err != nil {
		return StudentGrades{}, err
	}
	found := *student
	found.Grades = append([]Grade{}, student.Grades...)
	return found, nil
}

// Add appends a valid grade and returns its student, or a 404, or a 409 when the student has all the grades allowed.
func (b *Gradebook) Add(id int, grade Grade) (Student, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	student, err := b.at(id)
	if err != nil {
		return Student{}, err
	}
	if len(student.Grades) >= maxGrades {
		return Student{}, &Fault{http.StatusConflict, "too_many_grades",
			fmt.Sprintf("%s %s has %d grades already: no more can be added.", student.FirstName, student.LastName, maxGrades), ""}
	}
	student.Grades = append(student.Grades, grade)
	student.Average = average(student.Grades)
	return student.Student, nil
}

// at must be called with the mutex held.
func (b *Gradebook) at(id int) (*StudentGrades, error) {
	if id < 1 || id > len(b.students) {
		return nil, noStudent(fmt.Sprint(id))
	}
	return &b.students[id-1], nil
}

func noStudent(id string) *Fault {
	return &Fault{http.StatusNotFound, "no_student", fmt.Sprintf("There is no student %s: GET /students lists them.", id), ""}
}

// newGrade checks what was sent and returns the grade, or a 400 that names the field. A nil score was not sent.
func newGrade(title, kind string, score *float64) (Grade, error) {
	title = strings.TrimSpace(title)
	if length := utf8.RuneCountInString(title); length < 1 || length > maxTitle {
		return Grade{}, badField("Title", fmt.Sprintf("Title must have 1 to %d characters: this one has %d.", maxTitle, length))
	}
	// A line feed in a title would be two lines in the log.
	if strings.IndexFunc(title, unicode.IsControl) >= 0 {
		return Grade{}, badField("Title", "Title must be one line without control characters.")
	}
	if kind != "Quiz" && kind != "Test" && kind != "Exam" {
		return Grade{}, badField("Type", "Type must be Quiz, Test or Exam.")
	}
	if score == nil {
		return Grade{}, badField("Score", "Score must be a number from 0 to 100.")
	}
	if *score < 0 || *score > 100 {
		return Grade{}, badField("Score", fmt.Sprintf("Score must be from 0 to 100: %v is not.", *score))
	}
	return Grade{title, kind, *score}, nil
}

func badField(field, message string) *Fault {
	return &Fault{http.StatusBadRequest, "bad_field", message, field}
}

func average(grades []Grade) float64 {
	if len(grades) == 0 {
		return 0
	}
	var sum float64
	for _, grade := range grades {
		sum += grade.Score
	}
	return math.Round(sum/float64(len(grades))*10) / 10
}
