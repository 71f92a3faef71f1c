// corpus: exit_code = 1
package main

import (
	"fmt"
	"no/such/package"
)

func main() {
	fmt.Println(missing)
}
