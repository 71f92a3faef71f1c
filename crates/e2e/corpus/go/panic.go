// corpus: exit_code = 2
package main

import "fmt"

func main() {
	defer fmt.Println("deferred calls run")
	var numbers []int
	fmt.Println("before")
	fmt.Println(numbers[len(numbers)+5])
}
