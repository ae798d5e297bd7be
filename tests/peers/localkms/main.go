// localkms is local-kms, an emulator of AWS KMS, on a loopback port of the kernel's choice and with
// an empty database in the folder that it is given. Its own program listens on all interfaces.
package main

import (
	"log"
	"net"
	"net/http"
	"os"

	local_kms "github.com/nsmithuk/local-kms/src"
	"github.com/nsmithuk/local-kms/src/config"
	"github.com/nsmithuk/local-kms/src/data"
)

func main() {
	config.AWSAccountId = "111122223333"
	config.AWSRegion = os.Args[1]
	database := data.NewDatabase(os.Args[2])
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local_kms.HandleRequest(w, r, database)
	})))
}
