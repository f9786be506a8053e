// Command coredns is CoreDNS with the few plugins that a cluster without a way to the outside needs: all plugins take
// twice the time to compile and bring the libraries of every cloud.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

// Plugins answer in this order. The template comes last, to say at once that a name outside of the cluster does not
// exist, where CoreDNS's own order would ask it first.
func init() {
	dnsserver.Directives = []string{"ready", "health", "errors", "cache", "kubernetes", "template"}
}

func main() { coremain.Run() }
