// corpus: exit_code = 2
package main

import "fmt"

func main() {
	fmt.Println("before")
	<-make(chan int)
}
