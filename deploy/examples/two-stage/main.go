// A program without a system around it: it greets once, or over HTTP until it is told to stop.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

func greeting() string {
	name, err := os.Hostname()
	if err != nil {
		name = "nowhere"
	}
	return fmt.Sprintf("hello from %s, as user %d", name, os.Getuid())
}

func main() {
	once := flag.Bool("once", false, "greet and end")
	flag.Parse()
	if *once {
		fmt.Println(greeting())
		return
	}
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, greeting()) })
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() { log.Fatal(http.ListenAndServe(":8080", nil)) }()
	<-stop
}
