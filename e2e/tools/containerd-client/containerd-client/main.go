// Pushes and pulls an image of an OCI layout with the resolver of containerd, which nerdctl and the kubelet's
// container runtime use. A layout has the folders of containerd's content store.
//
//	containerd-client push LAYOUT TAG REFERENCE
//	containerd-client pull LAYOUT TAG REFERENCE
//
// REGISTRY_USER and REGISTRY_PASSWORD are the credentials. RATE limits a push to that many bytes per second and layer.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: containerd-client push|pull LAYOUT TAG REFERENCE")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, action, layout, tag, reference string) error {
	credentials := func(string) (string, string, error) {
		return os.Getenv("REGISTRY_USER"), os.Getenv("REGISTRY_PASSWORD"), nil
	}
	authorizer := docker.NewDockerAuthorizer(docker.WithAuthCreds(credentials))
	resolver := docker.NewResolver(docker.ResolverOptions{
		Hosts: docker.ConfigureDefaultRegistries(
			docker.WithAuthorizer(authorizer), docker.WithPlainHTTP(docker.MatchLocalhost)),
	})
	store, err := local.NewStore(layout)
	if err != nil {
		return err
	}
	switch action {
	case "push":
		described, err := find(layout, tag)
		if err != nil {
			return err
		}
		pusher, err := resolver.Pusher(ctx, reference)
		if err != nil {
			return err
		}
		return remotes.PushContent(ctx, pusher, described, slow{store}, nil, platforms.All, nil)
	case "pull":
		name, described, err := resolver.Resolve(ctx, reference)
		if err != nil {
			return err
		}
		fetcher, err := resolver.Fetcher(ctx, name)
		if err != nil {
			return err
		}
		handler := images.Handlers(remotes.FetchHandler(store, fetcher), images.ChildrenHandler(store))
		return images.Dispatch(ctx, handler, nil, described)
	}
	return errors.New("the action is push or pull")
}

func find(layout, tag string) (ocispec.Descriptor, error) {
	var index ocispec.Index
	text, err := os.ReadFile(filepath.Join(layout, ocispec.ImageIndexFile))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, entry := range index.Manifests {
		if entry.Annotations[ocispec.AnnotationRefName] == tag {
			return entry, nil
		}
	}
	return ocispec.Descriptor{}, fmt.Errorf("%s has no image %s", layout, tag)
}

// slow reads content at the rate of RATE.
type slow struct{ content.Store }

func (s slow) ReaderAt(ctx context.Context, described ocispec.Descriptor) (content.ReaderAt, error) {
	reader, err := s.Store.ReaderAt(ctx, described)
	rate, _ := strconv.Atoi(os.Getenv("RATE"))
	if err != nil || rate <= 0 {
		return reader, err
	}
	return &slowReader{reader, rate, time.Now(), 0}, nil
}

type slowReader struct {
	content.ReaderAt
	rate  int
	begun time.Time
	read  int64
}

func (r *slowReader) ReadAt(buffer []byte, offset int64) (int, error) {
	count, err := r.ReaderAt.ReadAt(buffer, offset)
	r.read += int64(count)
	due := r.begun.Add(time.Duration(float64(r.read) / float64(r.rate) * float64(time.Second)))
	if wait := time.Until(due); wait > 0 {
		time.Sleep(wait)
	}
	if errors.Is(err, io.EOF) {
		return count, io.EOF
	}
	return count, err
}
