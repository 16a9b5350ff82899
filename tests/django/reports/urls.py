import hashlib

from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt


def whoami(request):
    return JsonResponse({"service": "reports", "secure": request.is_secure()})


def lines(request):
    """A report that is made while it is read."""
    count = int(request.GET["count"])
    return StreamingHttpResponse(f"{number}\n" for number in range(count))


@csrf_exempt
def upload(request):
    """Reads a body of any size, piece by piece, and says what it was."""
    digest, size = hashlib.sha256(), 0
    while piece := request.read(65536):
        digest.update(piece)
        size += len(piece)
    return HttpResponse(f"{size} {digest.hexdigest()}")


urlpatterns = [
    path("reports/", whoami),
    path("reports/lines", lines),
    path("reports/upload", upload),
]
