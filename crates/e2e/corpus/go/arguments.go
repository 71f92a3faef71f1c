// corpus: args = ["alpha", "two words", "", "é"]
// corpus: env = { GIVEN = "a value" }
// corpus: exit_code = 200
package main

import (
	"fmt"
	"os"
	"sort"
)

func main() {
	defer fmt.Println("never printed: Exit runs no deferred calls")
	for number, argument := range os.Args {
		fmt.Printf("%d %q\n", number, argument)
	}
	environment := os.Environ()
	sort.Strings(environment)
	fmt.Println(environment)
	os.Exit(200)
}
