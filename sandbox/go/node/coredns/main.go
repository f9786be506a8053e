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

// Plugins answer in this order; it is CoreDNS's own.
func init() {
	dnsserver.Directives = []string{"ready", "health", "errors", "cache", "template", "kubernetes"}
}

func main() { coremain.Run() }
