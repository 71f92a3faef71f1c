// corpus: exit_code = 2
package main

import (
	"fmt"
	"os"
)

type node struct{ next *node }

func main() {
	fmt.Fprintln(os.Stderr, "before")
	var first *node
	first.next.next = nil
}
