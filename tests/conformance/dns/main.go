// Dns answers in the pod of the suite's coredns, whose Corefile it reads: for the zones with the
// plugin `whoami` it says, as that plugin does, from which address and port a question came. It
// forwards nothing, so other names are refused.
package main

import (
	"flag"
	"log"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"

	"github.com/miekg/dns"
)

func main() {
	configuration := flag.String("conf", "Corefile", "the Corefile")
	flag.Parse()
	text, err := os.ReadFile(*configuration)
	if err != nil {
		log.Fatal(err)
	}
	for _, zone := range whoamiZones(string(text)) {
		dns.HandleFunc(zone, whoami)
	}
	log.Fatal((&dns.Server{Addr: ":53", Net: "udp"}).ListenAndServe())
}

var block = regexp.MustCompile(`(?s)(\S+)\s*\{(.*?)\}`)

func whoamiZones(corefile string) []string {
	var zones []string
	for _, found := range block.FindAllStringSubmatch(corefile, -1) {
		name, port, hasPort := strings.Cut(found[1], ":")
		if hasPort && port != "53" {
			continue
		}
		for _, plugin := range strings.Fields(found[2]) {
			if plugin == "whoami" {
				zones = append(zones, dns.Fqdn(name))
			}
		}
	}
	return zones
}

func whoami(writer dns.ResponseWriter, question *dns.Msg) {
	answer := new(dns.Msg)
	answer.SetReply(question)
	answer.Authoritative = true
	name := question.Question[0].Name
	from, err := netip.ParseAddrPort(writer.RemoteAddr().String())
	if err != nil {
		log.Fatal(err)
	}
	address := net.IP(from.Addr().Unmap().AsSlice())
	header := func(name string, kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET}
	}
	if from.Addr().Unmap().Is4() {
		answer.Extra = append(answer.Extra, &dns.A{Hdr: header(name, dns.TypeA), A: address})
	} else {
		answer.Extra = append(answer.Extra, &dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: address})
	}
	answer.Extra = append(answer.Extra, &dns.SRV{
		Hdr:    header("_udp."+name, dns.TypeSRV),
		Port:   from.Port(),
		Target: ".",
	})
	if err := writer.WriteMsg(answer); err != nil {
		log.Print(err)
	}
}
