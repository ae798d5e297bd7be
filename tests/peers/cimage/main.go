// Command cimage copies an image as `skopeo copy` does, with go.podman.io/image in the version of
// go.mod: the library that skopeo, podman and buildah are made of, newer than in any of them.
//
// It understands those of skopeo's options that the tests use, under the same names, so that it can
// stand in skopeo's place.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	encconfig "github.com/containers/ocicrypt/config"
	enchelpers "github.com/containers/ocicrypt/helpers"
	"go.podman.io/image/v5/copy"
	_ "go.podman.io/image/v5/directory"
	_ "go.podman.io/image/v5/docker"
	_ "go.podman.io/image/v5/docker/archive"
	_ "go.podman.io/image/v5/oci/archive"
	_ "go.podman.io/image/v5/oci/layout"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/transports"
	"go.podman.io/image/v5/types"
)

func main() {
	if len(os.Args) < 2 || os.Args[1] != "copy" {
		fail(fmt.Errorf("usage: cimage copy [OPTION...] SOURCE DESTINATION"))
	}
	fail(run(os.Args[2:]))
}

func run(arguments []string) error {
	var encryptionKeys, decryptionKeys []string
	var layers []int
	source, destination := &types.SystemContext{}, &types.SystemContext{}
	options := &copy.Options{SourceCtx: source, DestinationCtx: destination}

	flags := flag.NewFlagSet("copy", flag.ExitOnError)
	flags.Bool("insecure-policy", true, "always so")
	flags.Func("encryption-key", "may be repeated", appendTo(&encryptionKeys))
	flags.Func("decryption-key", "may be repeated", appendTo(&decryptionKeys))
	flags.Func("encrypt-layer", "indices, separated by commas", func(value string) error {
		for _, text := range strings.Split(value, ",") {
			number, err := strconv.Atoi(text)
			if err != nil {
				return err
			}
			layers = append(layers, number)
		}
		return nil
	})
	flags.BoolFunc("src-tls-verify", "", insecureUnless(source))
	flags.BoolFunc("dest-tls-verify", "", insecureUnless(destination))
	flags.StringVar(&source.BigFilesTemporaryDir, "tmpdir", "", "")
	flags.BoolVar(&options.PreserveDigests, "preserve-digests", false, "")
	flags.BoolVar(&destination.OCIAcceptUncompressedLayers, "dest-oci-accept-uncompressed-layers", false, "")
	all := flags.Bool("all", false, "copy every image of an index")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return fmt.Errorf("expected a source and a destination, found %q", flags.Args())
	}
	destination.BigFilesTemporaryDir = source.BigFilesTemporaryDir
	if *all {
		options.ImageListSelection = copy.CopyAllImages
	}

	if len(encryptionKeys) > 0 {
		crypto, err := enchelpers.CreateCryptoConfig(encryptionKeys, nil)
		if err != nil {
			return fmt.Errorf("Invalid encryption keys: %w", err)
		}
		// combined, as skopeo does: the result has the parts that a single one leaves out
		combined := encconfig.CombineCryptoConfigs([]encconfig.CryptoConfig{crypto})
		options.OciEncryptConfig, options.OciEncryptLayers = combined.EncryptConfig, &layers
	}
	if len(decryptionKeys) > 0 {
		crypto, err := enchelpers.CreateCryptoConfig(nil, decryptionKeys)
		if err != nil {
			return fmt.Errorf("Invalid decryption keys: %w", err)
		}
		combined := encconfig.CombineCryptoConfigs([]encconfig.CryptoConfig{crypto})
		options.OciDecryptConfig = combined.DecryptConfig
	}

	from, err := parse(flags.Arg(0))
	if err != nil {
		return err
	}
	to, err := parse(flags.Arg(1))
	if err != nil {
		return err
	}
	anything := []signature.PolicyRequirement{signature.NewPRInsecureAcceptAnything()}
	policy, err := signature.NewPolicyContext(&signature.Policy{Default: anything})
	if err != nil {
		return err
	}
	_, err = copy.Image(context.Background(), policy, to, from, options)
	return err
}

// parse reads `transport:name`.
func parse(name string) (types.ImageReference, error) {
	kind, rest, _ := strings.Cut(name, ":")
	transport := transports.Get(kind)
	if transport == nil {
		return nil, fmt.Errorf("%q: no such transport here", name)
	}
	return transport.ParseReference(rest)
}

func appendTo(list *[]string) func(string) error {
	return func(value string) error {
		*list = append(*list, value)
		return nil
	}
}

func insecureUnless(system *types.SystemContext) func(string) error {
	return func(value string) error {
		verify, err := strconv.ParseBool(value)
		system.DockerInsecureSkipTLSVerify = types.NewOptionalBool(!verify)
		return err
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
