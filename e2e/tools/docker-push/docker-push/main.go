// Pushes an image of an OCI layout with the code of Docker Engine (github.com/docker/docker/distribution).
// Its transfer manager repeats a failed upload of a layer up to 5 times. The stores that this code uses are on
// the disk in the engine; here they are in memory and read the layout.
//
//	docker-push LAYOUT TAG REFERENCE
//	docker-push login HOST
//	docker-push pull REFERENCE
//
// REGISTRY_USER and REGISTRY_PASSWORD are the credentials. A pull reads all content and stores nothing. RATE limits a
// push to that many bytes per second and layer.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/distribution/reference"
	"github.com/docker/distribution/manifest/schema2"
	"github.com/docker/docker/api/types/events"
	registrytypes "github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/distribution"
	"github.com/docker/docker/distribution/metadata"
	"github.com/docker/docker/distribution/xfer"
	"github.com/docker/docker/layer"
	"github.com/docker/docker/pkg/progress"
	refstore "github.com/docker/docker/reference"
	"github.com/docker/docker/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's default of max-concurrent-uploads.
const concurrentUploads = 5

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "login":
		err = login(context.Background(), os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "pull":
		err = pull(context.Background(), os.Args[2])
	case len(os.Args) == 4:
		err = push(context.Background(), os.Args[1], os.Args[2], os.Args[3])
	default:
		fmt.Fprintln(os.Stderr, "usage: docker-push LAYOUT TAG REFERENCE | login HOST | pull REFERENCE")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func credentials(host string) *registrytypes.AuthConfig {
	return &registrytypes.AuthConfig{
		Username:      os.Getenv("REGISTRY_USER"),
		Password:      os.Getenv("REGISTRY_PASSWORD"),
		ServerAddress: host,
	}
}

// login does what `docker login` asks the engine to do.
func login(ctx context.Context, host string) error {
	service, err := registry.NewService(registry.ServiceOptions{})
	if err != nil {
		return err
	}
	_, _, err = service.Auth(ctx, credentials(host), "docker-push")
	return err
}

// pull pulls an image with the code of the engine, and discards its layers.
func pull(ctx context.Context, name string) error {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return err
	}
	state, err := os.MkdirTemp("", "docker-pull")
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)
	references, err := refstore.NewReferenceStore(filepath.Join(state, "repositories.json"))
	if err != nil {
		return err
	}
	known, err := metadata.NewFSMetadataStore(filepath.Join(state, "distribution"))
	if err != nil {
		return err
	}
	content, err := local.NewStore(filepath.Join(state, "content"))
	if err != nil {
		return err
	}
	service, err := registry.NewService(registry.ServiceOptions{})
	if err != nil {
		return err
	}
	return distribution.Pull(ctx, ref, &distribution.ImagePullConfig{
		Config: distribution.Config{
			AuthConfig:       credentials(""),
			ProgressOutput:   &output{},
			RegistryService:  service,
			ImageEventLogger: func(context.Context, string, string, events.Action) {},
			MetadataStore:    known,
			ImageStore:       &configs{},
			ReferenceStore:   references,
		},
		DownloadManager: xfer.NewLayerDownloadManager(&discarding{known: map[layer.ChainID]*pulledLayer{}}, concurrentUploads),
	}, content)
}

// configs keeps the config of a pulled image.
type configs struct{ text []byte }

func (c *configs) Put(_ context.Context, text []byte) (digest.Digest, error) {
	c.text = text
	return digest.FromBytes(text), nil
}

func (c *configs) Get(context.Context, digest.Digest) ([]byte, error) { return c.text, nil }

// discarding is a store of layers that keeps only their digests.
type discarding struct {
	layer.Store
	mutex sync.Mutex
	known map[layer.ChainID]*pulledLayer
}

func (d *discarding) Register(content io.Reader, parent layer.ChainID) (layer.Layer, error) {
	// The layers of the tests are not compressed: what is read is what the diff ID is of.
	digester := digest.Canonical.Digester()
	if _, err := io.Copy(digester.Hash(), content); err != nil {
		return nil, err
	}
	diff := layer.DiffID(digester.Digest())
	d.mutex.Lock()
	defer d.mutex.Unlock()
	pulled := &pulledLayer{diff: diff, chain: layer.ChainID(diff), parent: d.known[parent]}
	if parent != "" {
		pulled.chain = layer.ChainID(digest.FromString(string(parent) + " " + string(diff)))
	}
	d.known[pulled.chain] = pulled
	return pulled, nil
}

func (d *discarding) Get(chain layer.ChainID) (layer.Layer, error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if found, ok := d.known[chain]; ok {
		return found, nil
	}
	return nil, layer.ErrLayerDoesNotExist
}

func (d *discarding) Release(layer.Layer) ([]layer.Metadata, error) { return nil, nil }

type pulledLayer struct {
	layer.Layer
	diff   layer.DiffID
	chain  layer.ChainID
	parent *pulledLayer
}

func (l *pulledLayer) ChainID() layer.ChainID { return l.chain }
func (l *pulledLayer) DiffID() layer.DiffID   { return l.diff }
func (l *pulledLayer) Parent() layer.Layer {
	if l.parent == nil {
		return nil
	}
	return l.parent
}

func push(ctx context.Context, folder, tag, name string) error {
	image, err := read(folder, tag)
	if err != nil {
		return err
	}
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return err
	}
	state, err := os.MkdirTemp("", "docker-push")
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)
	references, err := refstore.NewReferenceStore(filepath.Join(state, "repositories.json"))
	if err != nil {
		return err
	}
	if err := references.AddTag(ref, image.config, true); err != nil {
		return err
	}
	known, err := metadata.NewFSMetadataStore(filepath.Join(state, "distribution"))
	if err != nil {
		return err
	}
	// Without options it uses HTTP for registries on the loopback network.
	service, err := registry.NewService(registry.ServiceOptions{})
	if err != nil {
		return err
	}
	return distribution.Push(ctx, ref, &distribution.ImagePushConfig{
		Config: distribution.Config{
			AuthConfig:       credentials(""),
			ProgressOutput:   &output{},
			RegistryService:  service,
			ImageEventLogger: func(context.Context, string, string, events.Action) {},
			MetadataStore:    known,
			ImageStore:       image,
			ReferenceStore:   references,
		},
		ConfigMediaType: schema2.MediaTypeImageConfig,
		LayerStores:     image.layers,
		UploadManager:   xfer.NewLayerUploadManager(concurrentUploads),
	})
}

// image is an image of a layout whose layers are not compressed: the digest of each is its diff id.
type image struct {
	folder string
	config digest.Digest
	layers layers
}

func read(folder, tag string) (*image, error) {
	var index ocispec.Index
	if err := readJSON(filepath.Join(folder, ocispec.ImageIndexFile), &index); err != nil {
		return nil, err
	}
	result := &image{folder: folder, layers: make(layers)}
	for _, entry := range index.Manifests {
		if entry.Annotations[ocispec.AnnotationRefName] != tag {
			continue
		}
		var manifest ocispec.Manifest
		if err := readJSON(result.blob(entry.Digest), &manifest); err != nil {
			return nil, err
		}
		result.config = manifest.Config.Digest
		var below *pushLayer
		var diffIDs []layer.DiffID
		for _, described := range manifest.Layers {
			diffIDs = append(diffIDs, layer.DiffID(described.Digest))
			below = &pushLayer{
				file:  result.blob(described.Digest),
				chain: layer.CreateChainID(diffIDs),
				diff:  layer.DiffID(described.Digest),
				size:  described.Size,
				below: below,
			}
			result.layers[below.chain] = below
		}
		return result, nil
	}
	return nil, fmt.Errorf("%s has no image %s", folder, tag)
}

func readJSON(file string, value any) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(content, value)
}

func (i *image) blob(dgst digest.Digest) string {
	return filepath.Join(i.folder, ocispec.ImageBlobsDir, dgst.Algorithm().String(), dgst.Encoded())
}

// Put implements distribution.ImageConfigStore; a push does not call it.
func (i *image) Put(context.Context, []byte) (digest.Digest, error) {
	return "", fmt.Errorf("the layout is read only")
}

// Get returns the config of an image.
func (i *image) Get(_ context.Context, dgst digest.Digest) ([]byte, error) {
	return os.ReadFile(i.blob(dgst))
}

// layers provides the layers of an image to the push.
type layers map[layer.ChainID]*pushLayer

func (l layers) Get(chain layer.ChainID) (distribution.PushLayer, error) {
	if found, ok := l[chain]; ok {
		return found, nil
	}
	return nil, fmt.Errorf("the layout has no layer %s", chain)
}

type pushLayer struct {
	file  string
	chain layer.ChainID
	diff  layer.DiffID
	size  int64
	below *pushLayer
}

func (l *pushLayer) ChainID() layer.ChainID { return l.chain }
func (l *pushLayer) DiffID() layer.DiffID   { return l.diff }
func (l *pushLayer) Size() int64            { return l.size }
func (l *pushLayer) Release()               {}

func (l *pushLayer) Parent() distribution.PushLayer {
	if l.below == nil {
		return nil
	}
	return l.below
}

// MediaType is the type of the engine's own layers, which a push compresses.
func (l *pushLayer) MediaType() string { return schema2.MediaTypeUncompressedLayer }

func (l *pushLayer) Open() (io.ReadCloser, error) {
	file, err := os.Open(l.file)
	rate, _ := strconv.Atoi(os.Getenv("RATE"))
	if err != nil || rate <= 0 {
		return file, err
	}
	return &slow{file, rate, time.Now(), 0}, nil
}

// slow reads a layer at the rate of RATE.
type slow struct {
	io.ReadCloser
	rate  int
	begun time.Time
	read  int64
}

func (s *slow) Read(buffer []byte) (int, error) {
	count, err := s.ReadCloser.Read(buffer)
	s.read += int64(count)
	due := s.begun.Add(time.Duration(float64(s.read) / float64(s.rate) * float64(time.Second)))
	if wait := time.Until(due); wait > 0 {
		time.Sleep(wait)
	}
	return count, err
}

// output prints what the engine would show, without the bars.
type output struct{ last string }

func (o *output) WriteProgress(now progress.Progress) error {
	line := strings.TrimSpace(now.ID + " " + now.Message + now.Action)
	if line != o.last && line != "" {
		fmt.Println(line)
	}
	o.last = line
	return nil
}
