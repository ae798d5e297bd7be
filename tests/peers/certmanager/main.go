// Command certmanager reads a cert-manager object on standard input, strictly, into cert-manager's
// own type, as its API server does: members that are unknown, doubled or of another type are errors.
package main

import (
	"fmt"
	"io"
	"os"

	v1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	if err := read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read(source io.Reader) error {
	text, err := io.ReadAll(source)
	if err != nil {
		return err
	}
	var certificate v1.Certificate
	if err := yaml.UnmarshalStrict(text, &certificate); err != nil {
		return err
	}
	if got := certificate.GroupVersionKind(); got != v1.SchemeGroupVersion.WithKind(v1.CertificateKind) {
		return fmt.Errorf("not a certificate: %s", got)
	}
	return nil
}
