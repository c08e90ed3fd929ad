module grading

go 1.19
