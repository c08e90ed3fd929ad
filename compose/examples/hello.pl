# A page that says where GradingService is. One process a connection: the sidecar keeps one open to notice at once when this app dies.
use strict;
use warnings;
use HTTP::Tiny;
use IO::Socket::INET;

my $sidecar = 'http://127.0.0.1:7071';
my $http    = HTTP::Tiny->new(timeout => 3);
my $listener = IO::Socket::INET->new(LocalPort => 8080, Listen => 64, ReuseAddr => 1) or die "hello: cannot listen on port 8080: $@\n";
$SIG{CHLD} = 'IGNORE';

sub page {
    my $found = $http->get("$sidecar/providers/GradingService", { headers => { Accept => 'text/plain' } });
    my $text = $found->{success} ? "Perl finds GradingService at $found->{content}" : "Perl finds no GradingService: $found->{content}";
    $http->post("$sidecar/log", { headers => { 'Content-Type' => 'text/plain' }, content => $text });
    return $text;
}

while (1) {
    my $client = $listener->accept or next;
    my $child = fork;
    if (!defined $child || $child) { close $client; next; }
    alarm 30;    # a client that says nothing is not waited for
    my $request = <$client> // exit;
    while (my $line = <$client>) { last if $line =~ /^\r?\n$/ }
    my $text = page();
    print $client "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ", length $text, "\r\nConnection: close\r\n\r\n$text";
    exit;
}
