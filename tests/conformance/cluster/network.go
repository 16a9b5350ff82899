package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
)

// Network is a bridge in the runner's network namespace that every pod hangs on with an address of
// its own. Gateways are on the loopback interface beside it, so each side reaches the other.
type Network struct {
	next netip.Addr
	made int
}

const (
	bridge = "pods"
	// Inside a network namespace of our own, where nothing else has an address.
	bridgeAddress = "10.244.0.1/16"
)

// NewNetwork sets up the loopback interface and the bridge. It wants a network namespace that is
// nobody else's.
func NewNetwork() (*Network, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	if len(interfaces) != 1 || interfaces[0].Flags&net.FlagLoopback == 0 {
		return nil, errors.New("this is no network namespace of its own; start it by `run`")
	}
	batch := []string{
		"link set lo up",
		"link add " + bridge + " type bridge",
		"address add " + bridgeAddress + " dev " + bridge,
		"link set " + bridge + " up",
	}
	if err := ip(batch, "ip"); err != nil {
		return nil, err
	}
	own := netip.MustParsePrefix(bridgeAddress).Addr()
	return &Network{next: own.Next()}, nil
}

// join connects the network namespace of a process to the bridge and says what its address is. An
// address is given out once, so that nobody takes a new pod for one that is gone.
func (n *Network) join(pid int) (netip.Addr, error) {
	address := n.next
	n.next = n.next.Next()
	n.made++
	outer := fmt.Sprintf("pod%d", n.made)
	target := strconv.Itoa(pid)

	outside := []string{
		fmt.Sprintf("link add %s type veth peer name eth0 netns %s", outer, target),
		fmt.Sprintf("link set %s master %s up", outer, bridge),
	}
	if err := ip(outside, "ip"); err != nil {
		return netip.Addr{}, err
	}
	inside := []string{
		fmt.Sprintf("address add %s/16 dev eth0", address),
		"link set eth0 up",
		"link set lo up",
	}
	return address, ip(inside, "nsenter", "--target", target, "--net", "ip")
}

// ip gives a batch of commands to ip(8), which command and its arguments start.
func ip(batch []string, command ...string) error {
	arguments := append(command[1:], "-batch", "-")
	run := exec.Command(command[0], arguments...)
	run.Stdin = strings.NewReader(strings.Join(batch, "\n") + "\n")
	if said, err := run.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %q: %w: %s", batch, err, said)
	}
	return nil
}
