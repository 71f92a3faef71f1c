package main

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	var wait sync.WaitGroup
	var total int64
	results := make(chan int, 8)
	for worker := 0; worker < 8; worker++ {
		wait.Add(1)
		go func(worker int) {
			defer wait.Done()
			for i := 0; i < 1000; i++ {
				atomic.AddInt64(&total, 1)
			}
			results <- worker
		}(worker)
	}
	wait.Wait()
	close(results)
	sum := 0
	for result := range results {
		sum += result
	}
	fmt.Println(total, sum, runtime.NumGoroutine(), runtime.NumCPU(), runtime.GOMAXPROCS(0))
	select {
	case <-time.After(10 * time.Millisecond):
		fmt.Println("timer")
	case <-make(chan int):
	}
}
