package main

// seedStudents returns the five students that every start begins with.
func seedStudents() []StudentGrades {
	return []StudentGrades{
		seedStudent("Lisa", "Vega", 85, 92, 88, 91),
		seedStudent("Omar", "Haddad", 100, 94, 79, 87),
		seedStudent("Mei", "Tanaka", 67, 85, 93, 79),
		seedStudent("Jonas", "Lindqvist", 95, 82, 73, 90),
		seedStudent("Amara", "Okafor", 72, 81, 96.5, 88.5),
	}
}

func seedStudent(first, last string, quiz1, quiz2, midterm, final float64) StudentGrades {
	return StudentGrades{
		Student: Student{FirstName: first, LastName: last},
		Grades: []Grade{
			{"Quiz 1", "Quiz", quiz1},
			{"Quiz 2", "Quiz", quiz2},
			{"Midterm", "Test", midterm},
			{"Final", "Exam", final},
		},
	}
}
