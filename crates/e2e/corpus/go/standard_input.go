// corpus: stdin = "first line\nsecond\nlast without end"
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
)

func main() {
	reader := bufio.NewReader(os.Stdin)
	line, err := reader.ReadString('\n')
	fmt.Printf("%q %v\n", line, err)
	rest, err := io.ReadAll(reader)
	fmt.Printf("%q %v\n", rest, err)
	_, err = reader.ReadByte()
	fmt.Println(err)
	fmt.Fprintln(os.Stderr, "to standard error")
}
