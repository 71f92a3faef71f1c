package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		fmt.Println("child", os.Args[1:], os.Getppid() != 0)
		os.Exit(3)
	}
	child := exec.Command(os.Args[0], "again")
	output, err := child.CombinedOutput()
	fmt.Printf("%s%v\n", output, err)
	_, err = exec.Command("no-such-program").Output()
	fmt.Println(err)
	os.WriteFile("note.txt", []byte("text"), 0o666)
	status, _ := os.Stat("note.txt")
	fmt.Println(status.Mode(), status.Size(), time.Since(status.ModTime()) < 30*time.Second)
	entries, _ := os.ReadDir(".")
	for _, entry := range entries {
		fmt.Print(entry.Name(), " ")
	}
	directory, _ := os.Getwd()
	_, err = os.ReadFile("missing")
	fmt.Println(directory, err)
	_, err = net.DialTimeout("tcp", "192.0.2.1:80", time.Second)
	fmt.Println(err)
}
