// Goroutines on every CPU: cloude run examples/pipeline.go --vcpus 2
package main

import (
	"fmt"
	"runtime"
	"sync"
)

func main() {
	squares := make([]int, 10)
	var group sync.WaitGroup
	for i := range squares {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			squares[i] = i * i
		}(i)
	}
	group.Wait()
	fmt.Println(runtime.NumCPU(), "CPU:", squares)
}
