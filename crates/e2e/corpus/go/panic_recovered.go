package main

import (
	"errors"
	"fmt"
)

func fail() (err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("recovered: %w", reason.(error))
		}
	}()
	panic(errors.New("the reason"))
}

func main() {
	fmt.Println(fail(), errors.Unwrap(fail()))
	var nothing map[string]int
	defer func() { fmt.Println(recover()) }()
	nothing["x"] = 1
}
