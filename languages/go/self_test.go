package main

import (
	"fmt"
	"os"
	"strings"
)

func main() {
	total, number := 0, 0
	for {
		if _, err := fmt.Scan(&number); err != nil {
			break
		}
		total += number
	}
	fmt.Println("sum of stdin:", total)
	fmt.Println("args:", strings.Join(os.Args[1:], ", "))
	if err := os.WriteFile("note.txt", []byte("written by Go\n"), 0o644); err != nil {
		panic(err)
	}
	note, err := os.ReadFile("note.txt")
	if err != nil {
		panic(err)
	}
	fmt.Println("file:", strings.TrimSpace(string(note)))
	fmt.Fprintln(os.Stderr, "this line is not part of it")
	os.Exit(8)
}
